package acctclient

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"layeh.com/radius"
)

// ErrNoReply is returned when every transmission of a request stayed unanswered.
var ErrNoReply = errors.New("acctclient: no reply")

// ErrClosed is returned for requests of a closed client.
var ErrClosed = errors.New("acctclient: closed")

// identifiers is the number of requests that one socket can have in progress.
const identifiers = 256

// receiveBuffer has room for a reply of any length to each of them, in octets.
const receiveBuffer = identifiers * 2 * radius.MaxPacketLength

// Options configures a Client.
type Options struct {
	// Secret is shared with the server. Required.
	Secret []byte
	// Timeout is the time to wait for a reply before the next transmission; the
	// default is 3 seconds.
	Timeout time.Duration
	// Transmissions is the most times that a request is sent; the default is 3.
	Transmissions int
	// MessageAuthenticator adds one to accounting requests.
	MessageAuthenticator bool
}

// A Client sends requests through one UDP socket. Its methods may be called from several
// goroutines; up to 256 requests are in progress at once, further ones wait for a free
// identifier.
type Client struct {
	options Options
	conn    net.Conn
	free    chan byte // unused identifiers
	reading sync.WaitGroup
	closed  chan struct{}
	failure error // the error that ended reading, once closed is closed

	mu      sync.Mutex
	waiting [identifiers]*call

	retransmissions atomic.Uint64
	badReplies      atomic.Uint64
}

// A call is a request in progress.
type call struct {
	request []byte
	reply   chan []byte // buffer of one
}

// Stats counts events of a client.
type Stats struct {
	Retransmissions uint64 // transmissions after the first
	BadReplies      uint64 // datagrams that answered no request in progress, or failed verification
}

// Dial connects to a server, "HOST:PORT". Local, "IP:PORT" or "IP:0", selects
// the source address; empty leaves it to the kernel.
func Dial(ctx context.Context, server, local string, options Options) (*Client, error) {
	var d net.Dialer
	if local != "" {
		addr, err := net.ResolveUDPAddr("udp", local)
		if err != nil {
			return nil, fmt.Errorf("acctclient: local address: %w", err)
		}
		d.LocalAddr = addr
	}
	conn, err := d.DialContext(ctx, "udp", server)
	if err != nil {
		return nil, fmt.Errorf("acctclient: %w", err)
	}
	return New(conn, options)
}

// New takes over a connected datagram socket, such as one made in another network
// namespace. It closes it on error too.
func New(conn net.Conn, options Options) (*Client, error) {
	if len(options.Secret) == 0 {
		return nil, errors.Join(errors.New("acctclient: secret is empty"), conn.Close())
	}
	if options.Timeout <= 0 {
		options.Timeout = 3 * time.Second
	}
	if options.Transmissions <= 0 {
		options.Transmissions = 3
	}
	if buffered, ok := conn.(interface{ SetReadBuffer(int) error }); ok {
		_ = buffered.SetReadBuffer(receiveBuffer) // a smaller buffer only costs retransmissions
	}
	c := &Client{
		options: options,
		conn:    conn,
		free:    make(chan byte, identifiers),
		closed:  make(chan struct{}),
	}
	for i := range identifiers {
		c.free <- byte(i)
	}
	c.reading.Go(c.read)
	return c, nil
}

// LocalAddr returns the source address of the client's requests.
func (c *Client) LocalAddr() net.Addr { return c.conn.LocalAddr() }

// Close ends the client; requests in progress fail with ErrClosed.
func (c *Client) Close() error {
	err := c.conn.Close()
	c.reading.Wait()
	return err
}

// Stats returns the counts so far.
func (c *Client) Stats() Stats {
	return Stats{Retransmissions: c.retransmissions.Load(), BadReplies: c.badReplies.Load()}
}

// Account sends an accounting request and returns once it is acknowledged.
func (c *Client) Account(ctx context.Context, r Request) error {
	p, err := r.Packet()
	if err != nil {
		return err
	}
	_, err = c.Exchange(ctx, p)
	return err
}

// Status sends a Status-Server (RFC 5997) and returns once it is answered.
func (c *Client) Status(ctx context.Context) error {
	_, err := c.Exchange(ctx, &radius.Packet{Code: radius.CodeStatusServer})
	return err
}

// Exchange signs and sends a packet under an identifier of its own choice and
// returns the verified reply. Retransmissions are the same octets. It returns
// ErrNoReply, ErrClosed or the context's error when there is none.
func (c *Client) Exchange(ctx context.Context, p *radius.Packet) (*radius.Packet, error) {
	id, err := c.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { c.free <- id }()

	q := *p
	q.Identifier = id
	if q.Code == radius.CodeStatusServer {
		rand.Read(q.Authenticator[:])
	}
	request, err := Encode(&q, c.options.Secret, c.options.MessageAuthenticator)
	if err != nil {
		return nil, err
	}
	reply, err := c.transmit(ctx, id, request)
	if err != nil {
		return nil, err
	}
	return radius.Parse(reply, c.options.Secret)
}

func (c *Client) acquire(ctx context.Context) (byte, error) {
	select {
	case id := <-c.free:
		return id, nil
	case <-c.closed:
		return 0, c.failure
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// transmit sends the request until it is answered or all transmissions are used.
func (c *Client) transmit(ctx context.Context, id byte, request []byte) ([]byte, error) {
	waiting := &call{request: request, reply: make(chan []byte, 1)}
	c.expect(id, waiting)
	defer c.expect(id, nil)

	timer := time.NewTimer(c.options.Timeout)
	defer timer.Stop()
	for sent := 1; ; sent++ {
		// An error here, such as "connection refused" while the server restarts, counts as
		// a lost datagram.
		_, _ = c.conn.Write(request)
		select {
		case reply := <-waiting.reply:
			return reply, nil
		case <-c.closed:
			return nil, c.failure
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-timer.C:
		}
		if sent == c.options.Transmissions {
			return nil, ErrNoReply
		}
		c.retransmissions.Add(1)
		timer.Reset(c.options.Timeout)
	}
}

func (c *Client) expect(id byte, waiting *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting[id] = waiting
}
