// Package drift compares what the database, the engine and the kernel say of one
// group, and says what has to be done for them to agree. It is pure: three views
// in, a list of operations out.
package drift
