package natlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/natlog/wire"
)

const (
	postWithin = 30 * time.Second // bounds a request
	answerSize = 300              // octets of an answer in an error
)

// post sends lines of JSON in the bodies of POST requests.
type post struct {
	target *target
	batch  int
	client *http.Client
}

func newPost(t *target, o *Options) *post {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig, transport.Proxy = o.TLS.Clone(), nil // identities go to the configured host alone
	return &post{t, o.Batch, &http.Client{Transport: transport, Timeout: postWithin, CheckRedirect: refuseRedirect}}
}

// refuseRedirect keeps identities from going to another address than the configured one.
func refuseRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

func (p *post) settle() time.Duration     { return 0 }
func (p *post) sent() uint64              { return 0 }
func (p *post) received() (uint64, error) { return 0, nil }

func (p *post) close() error {
	p.client.CloseIdleConnections()
	return nil
}

func (p *post) carry(ctx context.Context, events []nat.Event) error {
	for len(events) > 0 {
		n := min(len(events), p.batch)
		var body []byte
		for i := range events[:n] {
			var err error
			if body, err = wire.AppendJSON(body, &events[i]); err != nil {
				return err
			}
		}
		if err := p.post(ctx, body); err != nil {
			return err
		}
		events = events[n:]
	}
	return nil
}

func (p *post) post(ctx context.Context, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.target.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	res, err := p.client.Do(req)
	var with *url.Error // its text has the query, which may have a secret
	if errors.As(err, &with) {
		err = with.Err
	}
	if err != nil {
		return err
	}
	answer, err := io.ReadAll(io.LimitReader(res.Body, answerSize))
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 1<<20)) // so that the connection can be used again
	_ = res.Body.Close()
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("the collector answered %s: %s", res.Status, strings.TrimSpace(string(answer)))
	}
	return err
}
