// Command sessionctl is the NOC's command line for sessiond: it shows and
// changes subscribers, bindings, sessions, pools and settings over gRPC.
package main
