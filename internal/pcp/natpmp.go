package pcp

import (
	"context"
	"errors"
	"net/netip"

	"github.com/sessiond/sessiond/internal/pcp/wire"
)

// answerNATPMP answers a request of NAT-PMP (RFC 6886). Its mappings are those of PCP, with a nonce
// of zeros.
func (r *Responder) answerNATPMP(ctx context.Context, a *asked) ([]byte, string) {
	request, err := wire.ParseNATPMP(a.Octets)
	if err != nil {
		return natpmpFailure(a, &request, err)
	}
	answer := wire.NATPMPAnswer{NATPMPRequest: request, Epoch: a.epoch()}
	if request.Protocol == 0 {
		answer.Outside = a.client.Outside
		if !a.client.Settings.Enabled {
			return natpmpFailure(a, &request, wire.NotAuthorized)
		}
		return wire.AppendNATPMPAnswer(nil, &answer), wire.Success.String()
	}
	if request.InsidePort == 0 && request.Lifetime > 0 {
		return natpmpFailure(a, &request, wire.NotAuthorized)
	}
	granted, err := r.carryOutNATPMP(ctx, a, &request)
	if err != nil {
		result, _ := r.resultOf(err)
		return natpmpFailure(a, &request, result)
	}
	answer.OutsidePort = granted.Outside.Port()
	answer.Lifetime = min(request.Lifetime, granted.Lifetime) // section 3.3: not more than was asked for
	return wire.AppendNATPMPAnswer(nil, &answer), wire.Success.String()
}

// carryOutNATPMP does what a request asks for by the rules of MAP. A deletion grants no port.
func (r *Responder) carryOutNATPMP(ctx context.Context, a *asked, request *wire.NATPMPRequest) (granted wire.Answer, err error) {
	w, err := r.wishOf(a, &wire.Request{Opcode: wire.Map, Lifetime: request.Lifetime, Target: wire.Target{
		Protocol: request.Protocol, InsidePort: request.InsidePort,
		Outside: netip.AddrPortFrom(netip.Addr{}, request.OutsidePort),
	}})
	if err == nil {
		err = r.carryOut(ctx, w, &granted)
	}
	return granted, err
}

// natpmpFailure returns the answer to a request that failed (RFC 6886 section 3.5).
func natpmpFailure(a *asked, request *wire.NATPMPRequest, err error) ([]byte, string) {
	result, ok := errors.AsType[wire.Result](err)
	if !ok {
		return nil, OutcomeMalformed
	}
	if result == wire.UnsuppOpcode {
		return wire.AppendNATPMPUnsupported(nil, a.Octets, a.epoch()), result.String()
	}
	answer := wire.NATPMPAnswer{NATPMPRequest: *request, Result: wire.NATPMPResultOf(result), Epoch: a.epoch()}
	answer.OutsidePort, answer.Lifetime = 0, 0
	return wire.AppendNATPMPAnswer(nil, &answer), result.String()
}
