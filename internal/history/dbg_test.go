package history

func (w *walk) dump(outside interface{ String() string }, port int) {
	for _, t := range w.all {
		if t.block.Outside.String() == outside.String() && int(t.block.First) <= port && port <= int(t.block.Last) {
			w.t.Logf("user %d: %s to %s begun %t ended %t lost %v", t.user, t.allocated, t.released, t.begun, t.ended, t.lost)
		}
	}
	w.t.Log(w.gaps, w.read)
	l := w.store.log("default")
	for i, g := range l.segments {
		n, _ := outsideNumber(w.all[0].block.Outside)
		_ = n
		for k := range 3 {
			if outsideOf(k).String() == outside.String() {
				n, _ = outsideNumber(outsideOf(k))
			}
		}
		s, err := l.spansOf(i, n, 0, 65535)
		w.t.Log(g.file(), err)
		for _, x := range s {
			if int(x.first) <= port && port <= int(x.last) {
				w.t.Log("   ", x.allocated.text(), x.released.text(), x.vacant.text(), x.past)
			}
		}
	}
}
