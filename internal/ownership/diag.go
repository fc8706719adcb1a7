package ownership

import (
	"encoding/binary"
	"errors"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Requests and answers of sock_diag(7) about unix sockets: struct unix_diag_req, unix_diag_msg
// and its attributes, of linux/unix_diag.h.
const (
	diagByFamily    = 20   // SOCK_DIAG_BY_FAMILY
	diagBound       = 7    // TCP_CLOSE: neither listening nor connected
	diagListening   = 10   // TCP_LISTEN
	diagShowName    = 0x01 // UDIAG_SHOW_NAME
	diagShowUser    = 0x40 // UDIAG_SHOW_UID
	diagName        = 0    // UNIX_DIAG_NAME
	diagUser        = 7    // UNIX_DIAG_UID
	diagRequestSize = 24
	diagAnswerSize  = 16
)

// userOf returns the user that made the socket with an abstract name, in the network namespace
// of the calling thread.
func userOf(text string) (uint32, error) {
	users, err := usersOfNames()
	if err != nil {
		return 0, err
	}
	user, told := users[text]
	if !told {
		return 0, errors.New("sock_diag lists no such name")
	}
	return user, nil
}

// strangersNames returns the abstract names of users without a sessiond, as far as sock_diag
// lists them. A user may take very many names, so none of these is connected to.
func strangersNames() map[string]bool {
	users, err := usersOfNames()
	if err != nil {
		return nil
	}
	names, known := map[string]bool{}, map[uint32]bool{}
	for name, uid := range users {
		if _, ok := known[uid]; !ok {
			known[uid] = (&takenError{uid: uid, mum: true}).stranger()
		}
		if known[uid] {
			names[name] = true
		}
	}
	return names
}

// usersOfNames returns the users that made the sockets with abstract names, in the network
// namespace of the calling thread. It omits connected sockets: the accepted end of a
// connection to a name has that name, too.
func usersOfNames() (map[string]uint32, error) {
	conn, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	request := make([]byte, diagRequestSize)
	request[0] = unix.AF_UNIX
	binary.NativeEndian.PutUint32(request[4:], 1<<diagBound|1<<diagListening)
	binary.NativeEndian.PutUint32(request[12:], diagShowName|diagShowUser)
	answers, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: diagByFamily, Flags: netlink.Request | netlink.Dump},
		Data:   request,
	})
	if err != nil {
		return nil, err
	}
	users := map[string]uint32{}
	for _, a := range answers {
		if len(a.Data) < diagAnswerSize {
			continue
		}
		d, err := netlink.NewAttributeDecoder(a.Data[diagAnswerSize:])
		if err != nil {
			continue
		}
		var name string
		var user uint32
		told := false
		for d.Next() {
			switch d.Type() {
			case diagName:
				name = string(d.Bytes())
			case diagUser:
				user, told = d.Uint32(), true
			}
		}
		if text, abstract := strings.CutPrefix(name, "\x00"); abstract && told {
			users[text] = user
		}
	}
	return users, nil
}
