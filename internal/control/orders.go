package control

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"path"
	"sync"
	"unicode"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sessiond/sessiond/internal/access"
	"github.com/sessiond/sessiond/internal/audit"
)

// changeRequest is a request of a call that changes something.
type changeRequest interface {
	proto.Message
	GetReason() string
	GetRequestId() string
	GetValidateOnly() bool
}

// changeOrders makes an order of each call that changes something, for its audit entries, and
// lets a request with a request_id change things once.
type changeOrders struct {
	audits Audits
	logger *slog.Logger

	mu      sync.Mutex
	running map[requestName]chan struct{} // closed when the attempt is over
}

// requestName names a request with a request_id.
type requestName struct{ actor, id string }

// handle calls the handler, with an order in its context if the call may change something.
func (o *changeOrders) handle(ctx context.Context, method string, req any, handler grpc.UnaryHandler) (any, error) {
	change, ok := req.(changeRequest)
	if !ok || !access.Changes(method, req) {
		return handler(ctx, req)
	}
	order, err := newOrder(ctx, path.Base(method), change)
	if err != nil {
		return nil, err
	}
	var res any
	if order.RequestID == "" || order.ValidateOnly {
		res, err = handler(audit.With(ctx, order), req)
	} else {
		res, err = o.once(ctx, order, change, handler)
	}
	if err != nil && (order.Began() || order.Again) {
		err = &begunError{err}
	}
	return res, err
}

// newOrder returns the order of a call.
func newOrder(ctx context.Context, method string, change changeRequest) (*audit.Order, error) {
	if err := checkOrder(change); err != nil {
		return nil, err
	}
	caller, _ := access.From(ctx)
	return &audit.Order{
		Actor:  audit.Actor{Name: caller.Name, Role: caller.Role.String(), Source: caller.Source},
		Method: method,
		Reason: change.GetReason(), RequestID: change.GetRequestId(), ValidateOnly: change.GetValidateOnly(),
	}, nil
}

// checkOrder checks the fields that all changes have.
func checkOrder(change changeRequest) error {
	if len(change.GetReason()) > audit.MaxReason {
		return invalid("reason", "is longer than %d octets; a ticket number and a few words do", audit.MaxReason)
	}
	id := change.GetRequestId()
	if len(id) > audit.MaxRequestID {
		return invalid("request_id", "is longer than %d octets; write a shorter one, such as a UUID", audit.MaxRequestID)
	}
	for _, r := range id {
		if !unicode.IsGraphic(r) {
			return invalid("request_id", "has characters that cannot be seen; write another one, such as a UUID")
		}
	}
	return nil
}

// once carries out a request unless it was carried out before: then it returns that answer.
func (o *changeOrders) once(ctx context.Context, order *audit.Order, change changeRequest, handler grpc.UnaryHandler) (any, error) {
	digest, err := digestOf(order.Method, change)
	if err != nil {
		return nil, err
	}
	leave, err := o.enter(ctx, requestName{order.Name, order.RequestID})
	if err != nil {
		return nil, err
	}
	defer leave()
	request := audit.Request{Actor: order.Name, ID: order.RequestID, Digest: digest}
	known, err := o.audits.BeginRequest(ctx, request)
	switch {
	case err != nil:
		return nil, err
	case known.Other:
		return nil, invalid("request_id", "%q was used for another request a short time ago; write a new one", order.RequestID)
	case known.Answer != nil:
		return decodeAnswer(known.Answer)
	}
	order.Again, order.RequestAt, request.Began = known.Again, known.Began, known.Began
	res, err := handler(audit.With(ctx, order), change)
	o.remember(ctx, request, order, res, err)
	return res, err
}

// enter waits until no other attempt with the same name is under way.
func (o *changeOrders) enter(ctx context.Context, name requestName) (leave func(), err error) {
	for {
		o.mu.Lock()
		busy, ok := o.running[name]
		if !ok {
			done := make(chan struct{})
			o.running[name] = done
			o.mu.Unlock()
			return func() {
				o.mu.Lock()
				defer o.mu.Unlock()
				delete(o.running, name)
				close(done)
			}, nil
		}
		o.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// remember stores the outcome of a request. One that failed can be tried again: anew if it is
// certain that nothing was changed.
func (o *changeOrders) remember(ctx context.Context, r audit.Request, order *audit.Order, res any, failed error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rememberWithin)
	defer cancel()
	var err error
	switch answer, isMessage := res.(proto.Message); {
	case failed == nil && isMessage:
		var text []byte
		if text, err = encodeAnswer(answer); err == nil {
			err = o.audits.EndRequest(ctx, r, text)
		}
	case failed != nil && !order.Again && !order.Began() && certain(failed):
		err = o.audits.ForgetRequest(ctx, r)
	}
	if err != nil {
		o.logger.WarnContext(ctx, "the outcome of a request is not remembered; if it comes again it is carried out again",
			"method", order.Method, "actor", order.Name, "request_id", order.RequestID, "error", err)
	}
}

// certain reports whether an error leaves no doubt about its outcome.
func certain(err error) bool {
	switch code, _ := coding(err); code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Internal:
		return false
	}
	return true
}

func digestOf(method string, m proto.Message) (string, error) {
	text, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return "", fmt.Errorf("encode request: %w", err)
	}
	sum := sha256.Sum256(append([]byte(method+"\x00"), text...))
	return hex.EncodeToString(sum[:]), nil
}

func encodeAnswer(m proto.Message) ([]byte, error) {
	packed, err := anypb.New(m)
	if err != nil {
		return nil, fmt.Errorf("encode answer: %w", err)
	}
	return proto.Marshal(packed)
}

func decodeAnswer(text []byte) (any, error) {
	var packed anypb.Any
	if err := proto.Unmarshal(text, &packed); err != nil {
		return nil, fmt.Errorf("decode remembered answer: %w", err)
	}
	m, err := packed.UnmarshalNew()
	if err != nil {
		return nil, fmt.Errorf("decode remembered answer: %w", err)
	}
	return m, nil
}
