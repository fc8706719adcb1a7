// Command sessiond ties Carrier-Grade NAT to the life of the subscriber: it
// takes RADIUS accounting, keeps subscriber records in Redis, and removes the
// NAT sessions of every subscriber whose record is deleted.
//
// Reading order:
//
//	main.go           flags, and what each of them starts
//	daemon.go         the parts of a running sessiond: made, run, stopped
//	convert.go        from the configuration to the options of each package
//	reload.go         a configuration that changes while it runs
//	redis.go          the client of Redis
//	ownership.go      the lock of the table, and the groups of this node
//	deterministic.go  sessiond --deterministic
//	live.go           sessiond --check --live
//	removal.go        sessiond --removal
//	controls.go       gRPC: status and settings of the whole daemon
//	auditsinks.go     audit trails, trimmed and copied
//	export.go         the NAT log, sent to collectors
//	history.go        the history of the NAT
//	pcp.go            the server at which subscribers ask for mappings
//	web.go            HTTP: metrics and health; metricsource.go: states for the metrics
//	console.go        pages for a browser, beside them
//	logwriter.go      the log, whose reader may stop reading
//	gctuner.go        garbage in proportion to work
//	processors.go     the processors that Go code uses
package main
