package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/metadata"

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
	after, err := parseSubscriberToken(req.GetPageToken(), filter)
	if err != nil {
		return nil, err
	}
	subs, next, err := s.backend.Subscribers(ctx, filter, after, size)
	if err != nil {
		return nil, err
	}
	res := &pb.ListSubscribersResponse{Subscribers: make([]*pb.Subscriber, 0, len(subs))}
	if next != (subscriber.Key{}) {
		res.NextPageToken = subscriberToken(filter, next)
	}
	for i := range subs {
		res.Subscribers = append(res.Subscribers, toSubscriber(&subs[i]))
	}
	return res, nil
}

func (s *subscriberService) PutSubscriber(ctx context.Context, req *pb.PutSubscriberRequest) (*pb.PutSubscriberResponse, error) {
	record, err := s.recordToPut(ctx, req)
	if err != nil {
		return nil, err
	}
	if req.GetValidateOnly() {
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
		return record, invalid("subscriber.user_name", "is required, or a calling_station_id")
	}
	if !record.ExpiresAt.IsZero() && !record.ExpiresAt.After(s.now()) {
		return record, invalid("subscriber.expires_at", "is in the past")
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
	return present.Record, mergeRecord(&present.Record, change, req.GetUpdateMask())
}

func (s *subscriberService) DeleteSubscribers(ctx context.Context, req *pb.DeleteSubscribersRequest) (*pb.DeleteSubscribersResponse, error) {
	filter, err := fromSubscriberQuery(req)
	if err != nil {
		return nil, err
	}
	if !filter.Inside.IsValid() && filter.NAS == "" && filter.UserName == "" {
		return nil, invalid("inside", "is required, or nas or user_name")
	}
	if req.GetValidateOnly() {
		records, sessions, err := s.previews.PreviewDelete(ctx, filter)
		if err != nil {
			return nil, err
		}
		res := toDeleted(records)
		res.SessionsEnded = count(sessions)
		return res, nil
	}
	deleted, err := s.backend.Delete(ctx, filter)
	if err != nil {
		return nil, fmt.Errorf("after %d deletions: %w", len(deleted), err)
	}
	return toDeleted(deleted), nil
}

func toDeleted(deleted []subscriber.Record) *pb.DeleteSubscribersResponse {
	res := &pb.DeleteSubscribersResponse{Deleted: count(len(deleted))}
	for i := range min(len(deleted), maxDeletedShown) {
		res.Subscribers = append(res.Subscribers, toRecord(&deleted[i]))
	}
	return res
}

func (s *subscriberService) WatchSubscribers(req *pb.WatchSubscribersRequest, stream pb.SubscriberService_WatchSubscribersServer) error {
	filter, err := fromSubscriberQuery(req)
	if err != nil {
		return err
	}
	ctx := stream.Context()
	notices := s.backend.Watch(ctx, filter)
	if err := stream.SendHeader(metadata.MD{}); err != nil {
		return err
	}
	for notice, err := range notices {
		if err != nil {
			return err
		}
		message, err := notice.Encoded(encodeEvent)
		if err != nil {
			return err
		}
		if err := stream.SendMsg(encodedMessage(message)); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errStopping
}
