package control

import (
	"context"
	"fmt"
	"slices"
	"strings"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/inspect"
)

// maxClientsNamed bounds the number of clients in an error.
const maxClientsNamed = 8

type nasService struct {
	pb.UnimplementedNasServiceServer
	backend NASes
}

func (s *nasService) ListNases(ctx context.Context, req *pb.ListNasesRequest) (*pb.ListNasesResponse, error) {
	filter := inspect.NASFilter{Client: toOctets(req.GetClient()), Name: toOctets(req.GetName())}
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	if _, err := fromOrder(req.GetOrderBy(), orderNAS); err != nil {
		return nil, err
	}
	after, err := parseNASToken(req.GetPageToken(), filter)
	if err != nil {
		return nil, err
	}
	list, err := s.backend.NASes(ctx, filter, after, size+1)
	if err != nil {
		return nil, err
	}
	res := &pb.ListNasesResponse{}
	if len(list) > size {
		list = list[:size]
		res.NextPageToken = nasToken(filter, list[size-1].NASKey)
	}
	for i := range list {
		res.Nases = append(res.Nases, toNAS(&list[i]))
	}
	return res, nil
}

func (s *nasService) GetNas(ctx context.Context, req *pb.GetNasRequest) (*pb.GetNasResponse, error) {
	filter := inspect.NASFilter{Client: toOctets(req.GetClient()), Name: toOctets(req.GetName())}
	if filter.Name == "" {
		return nil, invalid("name", "is required; write the name of a NAS as ListNases has it")
	}
	list, err := s.backend.NASes(ctx, filter, inspect.NASKey{}, maxPageSize)
	if err != nil {
		return nil, about("nas", req.GetName(), err)
	}
	if len(list) > 1 { // other names of one NAS are not ambiguous
		list = slices.DeleteFunc(list, func(n inspect.NAS) bool { return n.SameAs != inspect.NASKey{} })
	}
	switch len(list) {
	case 0:
		return nil, about("nas", req.GetName(), inspect.ErrNotFound)
	case 1:
		return &pb.GetNasResponse{Nas: toNAS(&list[0])}, nil
	}
	return nil, invalid("client", "is required: %s have a NAS of that name; write one of them", clientsOf(list))
}

// clientsOf names the first clients of a list.
func clientsOf(list []inspect.NAS) string {
	var names []string
	for i := range list[:min(len(list), maxClientsNamed)] {
		names = append(names, toText(list[i].Client))
	}
	text := strings.Join(names, ", ")
	if more := len(list) - len(names); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
