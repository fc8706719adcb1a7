package session

import (
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// publishLocked tells watchers what happened to the slot's subscriber: to the
// one whose binding is being torn down, while there is one.
func (m *Manager) publishLocked(kind inspect.EventKind, s *slot) {
	if !m.events.Watched() {
		return
	}
	e := inspect.Event{At: m.now(), Kind: kind, Subscriber: m.viewLocked(s)}
	if s.over != nil {
		e.Reason, e.Subscriber.Record = s.over.reason, s.over.record.Record()
	}
	m.events.Publish(e)
}

// publishEndedLocked tells that nothing of the ended subscriber is left, and
// which block it had.
func (m *Manager) publishEndedLocked(s *slot, b lsn.Binding, deleted int) {
	if !m.events.Watched() || s.over == nil {
		return
	}
	m.events.Publish(inspect.Event{
		At: m.now(), Kind: inspect.EventReaped, Reason: s.over.reason, SessionsEnded: deleted,
		Subscriber: inspect.Subscriber{Record: s.over.record.Record(), Binding: &inspect.Binding{Binding: b}},
	})
}

// publishChangeLocked tells watchers of a change of the record itself.
func (m *Manager) publishChangeLocked(kind inspect.EventKind, reason subscriber.Reason, r *subscriber.Packed) {
	if !m.events.Watched() {
		return
	}
	view := inspect.Subscriber{Record: r.Record()}
	if s := m.slots.at(r.Inside()); s != nil && kind != inspect.EventDeleted {
		view = m.viewLocked(s)
	}
	m.events.Publish(inspect.Event{At: m.now(), Kind: kind, Reason: reason, Subscriber: view})
}

// publishReleasedLocked tells that a block's quarantine is over.
func (m *Manager) publishReleasedLocked(b lsn.Binding) {
	if !m.events.Watched() {
		return
	}
	m.events.Publish(inspect.Event{
		At: m.now(), Kind: inspect.EventReleased,
		Subscriber: inspect.Subscriber{
			Record:  recordOf(b.Group, b.Holder),
			Binding: &inspect.Binding{Binding: b},
		},
	})
}
