// Command sessionctl is the NOC's command line for sessiond: it shows and
// changes subscribers, bindings, sessions, pools and settings over gRPC.
//
// Each noun has a file with its commands: subscriber.go, with subscriber_put.go,
// subscriber_delete.go, history.go and timeline.go; past.go for the history of ports, with
// proof.go; binding.go, session.go, mapping.go, pool.go, nas.go, removal.go, settings.go, audit.go.
// status.go, reconcile.go, drops.go and watch.go show the daemon as a whole, explain.go one
// customer, top.go the busiest ones, doctor.go the machine. They share:
//
//	main.go       the start of the program
//	app.go        one run: its flags and its nouns
//	client.go     the connection to the daemon; token.go: the token on it
//	arguments.go  addresses, ports, times and the like from the command line
//	confirm.go    the question before a change; order.go: its reason, and trying it
//	pages.go      lists, page by page
//	output.go     formats, and single answers; list.go: lists
//	table.go      columns that fit the terminal; human.go: values for people
//	sort.go       lists in another order; refresh.go: --watch
//	json.go       messages for programs; yaml.go, csv.go: the other formats
//	printed.go    octets that could act on a terminal; terminal.go: its size and colours
//	progress.go   long work
//	help.go       help of 80 columns; man.go: the manual page
//	errors.go     exit codes, and advice for the daemon's errors
//	complete.go   completion by the shell
package main
