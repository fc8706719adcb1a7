// Package drift compares the views of one group that database, engine and
// kernel have, and determines the operations that make them agree. It is pure:
// three views in, a list of operations out.
package drift
