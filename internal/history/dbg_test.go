package history
func (w *walk) dump(outside interface{ String() string }, port int) {
	for _, t := range w.all {
		if t.block.Outside.String() == outside.String() && int(t.block.First) <= port && port <= int(t.block.Last) {
			w.t.Logf("%+v", *t)
		}
	}
	for i, l := range w.log { for _, e := range l.Events { if e.Outside.String() == outside.String() && int(e.First) <= port && port <= int(e.Last) { w.t.Log(i+1, e.Kind, e.At, e.Since, e.Holder.UserName) } } }
	w.t.Log(w.gaps, w.read)
}
