package acctclient

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"syscall"

	"layeh.com/radius"
)

// read delivers replies to their calls until the socket is closed.
func (c *Client) read() {
	defer close(c.closed)
	buf := make([]byte, radius.MaxPacketLength)
	for {
		n, err := c.conn.Read(buf)
		switch {
		case err == nil:
			c.deliver(buf[:n])
		case errors.Is(err, net.ErrClosed):
			c.failure = ErrClosed
			return
		case errors.Is(err, syscall.ECONNREFUSED):
			// The server is down; it may come back before the last transmission.
		default:
			c.failure = fmt.Errorf("acctclient: %w", err)
			return
		}
	}
}

// deliver passes a datagram to the call that it answers, if its authenticator is correct.
func (c *Client) deliver(datagram []byte) {
	if !c.answers(datagram) {
		c.badReplies.Add(1)
	}
}

func (c *Client) answers(datagram []byte) bool {
	if len(datagram) < 20 {
		return false
	}
	c.mu.Lock()
	waiting := c.waiting[datagram[1]]
	c.mu.Unlock()
	if waiting == nil || !Verify(datagram, waiting.request, c.options.Secret) {
		return false
	}
	select {
	case waiting.reply <- bytes.Clone(datagram):
	default: // a second reply to the same request
	}
	return true
}
