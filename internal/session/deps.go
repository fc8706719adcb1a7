package session

import "github.com/sessiond/sessiond/internal/reconcile"

// Store is the database as the parts of a Manager need it; each names its share beside it.
// *subscriberdb.DB is one.
type Store interface {
	accountingProbe
	bindingStore
	feedStore
	feedAge
	settingsStore
	markerStore
	servedStore
	reconcile.Store
	backendStore
}

// Kernel is the NAT below, as the parts of a Manager need it: *nftnat.Kernel, or its
// in-memory twin.
type Kernel interface {
	readyKernel
	executorKernel
	idleKernel
	timeoutKernel
	prefixKernel
	reconcile.Kernel
	backendKernel
}

// Observer is told what happened, for metrics. Its methods must not block.
type Observer interface {
	removalObserver
	reconcile.Observer
}
