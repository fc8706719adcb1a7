package session

import "github.com/sessiond/sessiond/internal/reconcile"

// Store is the database as a Manager needs it; each part declares its own share
// next to its code. *subscriberdb.DB implements it.
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

// Kernel is the NAT in the kernel as a Manager needs it: *nftnat.Kernel, or its
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

// Observer counts events for metrics. Its methods must not block.
type Observer interface {
	removalObserver
	reconcile.Observer
}
