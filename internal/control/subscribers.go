package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// maxDeletedShown bounds the size of a DeleteSubscribersResponse.
const maxDeletedShown = 1000

type subscriberService struct {
	pb.UnimplementedSubscriberServiceServer
	backend  Subscribers
	previews Previews
	now      func() time.Time
}

func (s *subscriberService) GetSubscriber(ctx context.Context, req *pb.GetSubscriberRequest) (*pb.GetSubscriberResponse, error) {
	inside, err := fromAddr("inside_address", req.GetInsideAddress())
	if err != nil {
		return nil, err
	}
	sub, err := s.backend.Subscriber(ctx, subscriber.Key{Group: req.GetGroup(), Inside: inside})
	if err != nil {
		return nil, about("subscriber", inside.String(), err)
	}
	return &pb.GetSubscriberResponse{Subscriber: toSubscriber(&sub)}, nil
}

func (s *subscriberService) ListSubscribers(ctx context.Context, req *pb.ListSubscribersRequest) (*pb.ListSubscribersResponse, error) {
	filter, err := fromSubscriberQuery(req)
	if err != nil {
		return nil, err
	}
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	byName, err := fromOrder(req.GetOrderBy(), orderInside, orderUser)
	if err != nil {
		return nil, err
	}
	list := s.listByAddress
	if byName == orderUser {
		list = s.listByName
	}
	subs, next, err := list(ctx, filter, req.GetPageToken(), size)
	if err != nil {
		return nil, err
	}
	res := &pb.ListSubscribersResponse{Subscribers: make([]*pb.Subscriber, 0, len(subs)), NextPageToken: next}
	for i := range subs {
		res.Subscribers = append(res.Subscribers, toSubscriber(&subs[i]))
	}
	if n, counted := s.backend.SubscriberTotal(ctx, filter); counted && byName == orderInside {
		res.TotalSize = total(n)
	}
	return res, nil
}

// listByAddress returns a page by group and inside address, and the token for the next one.
func (s *subscriberService) listByAddress(ctx context.Context, f inspect.SubscriberFilter, token string, size int) ([]inspect.Subscriber, string, error) {
	after, err := parseSubscriberToken(token, f)
	if err != nil {
		return nil, "", err
	}
	subs, next, err := s.backend.Subscribers(ctx, f, after, size)
	if err != nil || next == (subscriber.Key{}) {
		return subs, "", err
	}
	return subs, subscriberToken(f, next), nil
}

// listByName is listByAddress by User-Name.
func (s *subscriberService) listByName(ctx context.Context, f inspect.SubscriberFilter, token string, size int) ([]inspect.Subscriber, string, error) {
	after, err := parseNameToken(token, f)
	if err != nil {
		return nil, "", err
	}
	subs, next, err := s.backend.SubscribersByName(ctx, f, after, size)
	if err != nil || next == (inspect.NameKey{}) {
		return subs, "", err
	}
	return subs, nameToken(f, next), nil
}

func (s *subscriberService) PutSubscriber(ctx context.Context, req *pb.PutSubscriberRequest) (*pb.PutSubscriberResponse, error) {
	record, err := s.recordToPut(ctx, req)
	if err != nil {
		return nil, err
	}
	if req.GetValidateOnly() {
		if err := s.checkVersion(ctx, record.Key, record.Version); err != nil {
			return nil, about("subscriber", record.Inside.String(), err)
		}
		return s.previewPut(ctx, record)
	}
	stored, err := s.backend.Put(ctx, record)
	if err != nil {
		return nil, about("subscriber", record.Inside.String(), err)
	}
	sub, err := s.backend.Subscriber(ctx, stored.Key)
	if errors.Is(err, inspect.ErrNotFound) { // deleted since, or not visible yet
		sub, err = inspect.Subscriber{Record: stored}, nil
	}
	if err != nil {
		return nil, about("subscriber", record.Inside.String(), err)
	}
	return &pb.PutSubscriberResponse{Subscriber: toSubscriber(&sub)}, nil
}

func (s *subscriberService) previewPut(ctx context.Context, record subscriber.Record) (*pb.PutSubscriberResponse, error) {
	ended, sessions, err := s.previews.PreviewPut(ctx, record)
	if err != nil {
		return nil, about("subscriber", record.Inside.String(), err)
	}
	return &pb.PutSubscriberResponse{Subscriber: toRecord(&record), SubscribersEnded: count(ended), SessionsEnded: count(sessions)}, nil
}

// recordToPut returns the whole record to store for the request.
func (s *subscriberService) recordToPut(ctx context.Context, req *pb.PutSubscriberRequest) (subscriber.Record, error) {
	record, err := fromSubscriber(req.GetSubscriber())
	if err != nil {
		return record, err
	}
	if !replacesAll(req.GetUpdateMask()) {
		if record, err = s.merged(ctx, record, req); err != nil {
			return record, err
		}
	}
	if record.Identity() == "" {
		return record, invalid("subscriber.user_name", "is required, or a calling_station_id; write by which the subscriber is known")
	}
	if !record.ExpiresAt.IsZero() && !record.ExpiresAt.After(s.now()) {
		return record, invalid("subscriber.expires_at", "is in the past; write a later time, or leave it out for never")
	}
	return record, nil
}

// merged returns the present record, if any, with the fields in the mask changed.
func (s *subscriberService) merged(ctx context.Context, change subscriber.Record, req *pb.PutSubscriberRequest) (subscriber.Record, error) {
	present, err := s.backend.Subscriber(ctx, change.Key)
	if errors.Is(err, inspect.ErrNotFound) {
		present, err = inspect.Subscriber{Record: subscriber.Record{Key: change.Key}}, nil
	}
	if err != nil {
		return change, about("subscriber", change.Inside.String(), err)
	}
	present.Version = change.Version
	return present.Record, mergeRecord(&present.Record, change, req.GetUpdateMask())
}

func (s *subscriberService) DeleteSubscribers(ctx context.Context, req *pb.DeleteSubscribersRequest) (*pb.DeleteSubscribersResponse, error) {
	filter, err := fromSubscriberQuery(req)
	if err != nil {
		return nil, err
	}
	if all := (inspect.SubscriberFilter{Group: filter.Group}); filter == all {
		return nil, invalid("inside", "is required, or another field besides group; \"0.0.0.0/0\" stands for all subscribers")
	}
	if req.GetEtag() != "" {
		return s.deleteVersion(ctx, filter, req)
	}
	if req.GetValidateOnly() {
		return s.previewDelete(ctx, filter)
	}
	deleted, err := s.backend.Delete(ctx, filter)
	if err != nil {
		return nil, fmt.Errorf("after %d deletions: %w", len(deleted), err)
	}
	return toDeleted(deleted), nil
}

func (s *subscriberService) previewDelete(ctx context.Context, filter inspect.SubscriberFilter) (*pb.DeleteSubscribersResponse, error) {
	records, all, sessions, err := s.previews.PreviewDelete(ctx, filter, maxDeletedShown)
	if err != nil {
		return nil, err
	}
	res := toDeleted(records)
	res.Deleted, res.SessionsEnded = count(all), count(sessions)
	return res, nil
}

func toDeleted(deleted []subscriber.Record) *pb.DeleteSubscribersResponse {
	res := &pb.DeleteSubscribersResponse{Deleted: count(len(deleted))}
	for i := range min(len(deleted), maxDeletedShown) {
		res.Subscribers = append(res.Subscribers, toRecord(&deleted[i]))
	}
	return res
}

// deleteVersion deletes one record, if it still is the one that was looked at.
func (s *subscriberService) deleteVersion(ctx context.Context, f inspect.SubscriberFilter, req *pb.DeleteSubscribersRequest) (*pb.DeleteSubscribersResponse, error) {
	if f != (inspect.SubscriberFilter{Group: f.Group, Inside: f.Inside}) || !f.Inside.IsSingleIP() {
		return nil, invalid("etag", "is of one record; give inside as one address, and no other field but group")
	}
	key := subscriber.Key{Group: f.Group, Inside: f.Inside.Addr()}
	if req.GetValidateOnly() {
		if err := s.checkVersion(ctx, key, req.GetEtag()); err != nil {
			return nil, about("subscriber", key.Inside.String(), err)
		}
		return s.previewDelete(ctx, f)
	}
	r, err := s.backend.DeleteVersion(ctx, key, req.GetEtag())
	if err != nil {
		return nil, about("subscriber", f.Inside.Addr().String(), err)
	}
	return &pb.DeleteSubscribersResponse{Deleted: 1, Subscribers: []*pb.Subscriber{toRecord(&r)}}, nil
}

// checkVersion compares the version of a subscriber's record with the one that a caller has
// looked at; empty is any. ErrNotFound, ErrConflict.
func (s *subscriberService) checkVersion(ctx context.Context, key subscriber.Key, version string) error {
	if version == "" {
		return nil
	}
	present, err := s.backend.Subscriber(ctx, key)
	if err == nil && present.Version != version {
		err = inspect.ErrConflict
	}
	return err
}
