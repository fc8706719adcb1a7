package console

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
)

// prefixRow is an outside prefix with some of its addresses.
type prefixRow struct {
	inspect.Pool
	Addresses []netip.Addr
	Next      netip.Addr // the first address that is not shown; zero at the end
	Drain     string     // path of the page to drain it, "" for none
	Add       string     // path of the page to use it again, "" for none
}

// addressesOnPage is the most addresses that a page lists of one prefix.
const addressesOnPage = 256

// prefixesPage lists the outside prefixes, with links to their addresses.
func (c *Console) prefixesPage(r *http.Request) (shownPage, error) {
	from, err := addressIn(r.FormValue("from"))
	if err != nil {
		return shownPage{}, err
	}
	pools, err := c.Nat.Pools(r.Context())
	if err != nil {
		return shownPage{}, err
	}
	v := visitorOf(r)
	mayChange := v.session != nil && v.may(pb.NatService_DrainPool_FullMethodName)
	var rows []prefixRow
	for _, p := range pools {
		if from.IsValid() && !p.Outside.Contains(from) {
			continue
		}
		row := addressesOf(p, from)
		switch {
		case !mayChange || p.Former:
		case p.Draining:
			row.Add = changePath("pools/add", "group", p.Group, "prefix", p.Outside.String())
		default:
			row.Drain = changePath("pools/drain", "group", p.Group, "prefix", p.Outside.String())
		}
		rows = append(rows, row)
	}
	return shownPage{template: "prefixes.html", Title: "Outside addresses", Section: "outside", Body: rows}, nil
}

// addressesOf returns a prefix with its addresses, of which the first is from, if that is valid.
func addressesOf(p inspect.Pool, from netip.Addr) prefixRow {
	row := prefixRow{Pool: p}
	if !from.IsValid() {
		from = p.Outside.Masked().Addr()
	}
	for a := from; p.Outside.Contains(a); a = a.Next() {
		if len(row.Addresses) == addressesOnPage {
			row.Next = a
			break
		}
		row.Addresses = append(row.Addresses, a)
	}
	return row
}

// addressIn reads an IPv4 address of a request; the zero one for none.
func addressIn(text string) (netip.Addr, error) {
	if text == "" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil || !a.Is4() {
		return netip.Addr{}, badInput("%.100q is no IPv4 address; write one such as 198.51.100.1", text)
	}
	return a, nil
}

// outsideBody is an outside address with its blocks.
type outsideBody struct {
	Address  netip.Addr
	Pool     inspect.Pool
	Layout   Layout
	Drawing  *blockDrawing // nil where the blocks are unknown or too many
	TooMany  int           // blocks, where these are too many to draw
	Counts   []stateCount
	Bindings []inspect.Binding
	More     bool // the address has more bindings than are listed

	Quarantined int // free blocks of the whole group in quarantine
}

// stateCount is the number of blocks in a state.
type stateCount struct {
	State string
	N     int
}

// bindingsOnPage is the most bindings that a page lists: those of the smallest usual blocks.
const bindingsOnPage = 4096

// outsidePage shows the blocks of one outside address.
func (c *Console) outsidePage(r *http.Request) (shownPage, error) {
	address, err := addressIn(r.PathValue("address"))
	if err != nil {
		return shownPage{}, err
	}
	pool, err := c.poolOf(r.Context(), address)
	if err != nil {
		return shownPage{}, err
	}
	b := outsideBody{Address: address, Pool: pool}
	filter := inspect.BindingFilter{Group: pool.Group, Outside: netip.PrefixFrom(address, address.BitLen())}
	bindings, next, err := c.Nat.Bindings(r.Context(), filter, inspect.BindingKey{}, bindingsOnPage)
	if err != nil {
		return shownPage{}, err
	}
	slices.SortFunc(bindings, func(a, b inspect.Binding) int { return int(a.First) - int(b.First) })
	b.Bindings, b.More = bindings, next != (inspect.BindingKey{})
	status, err := c.Controls.Status(r.Context())
	if err != nil {
		return shownPage{}, err
	}
	for i := range status.Groups {
		if status.Groups[i].Name == pool.Group {
			b.Quarantined = status.Groups[i].Quarantined
		}
	}
	if layout, ok := c.Machine.Layout(pool.Group); ok && !b.More {
		b.Layout = layout
		blocks := blocksOf(layout, bindings)
		b.Counts = countsOf(blocks)
		if len(blocks) > mostCells {
			b.TooMany = len(blocks)
		} else {
			b.Drawing = draw(blocks)
		}
	}
	return shownPage{template: "outside.html", Title: "Blocks of " + address.String(), Section: "outside", Body: b}, nil
}

// poolOf returns the outside prefix that has an address.
func (c *Console) poolOf(ctx context.Context, outside netip.Addr) (inspect.Pool, error) {
	pools, err := c.Nat.Pools(ctx)
	if err != nil {
		return inspect.Pool{}, err
	}
	i := slices.IndexFunc(pools, func(p inspect.Pool) bool { return p.Outside.Contains(outside) })
	if i < 0 {
		return inspect.Pool{}, fmt.Errorf("%s is in no outside prefix: %w", outside, inspect.ErrNotFound)
	}
	return pools[i], nil
}

// shownBlock is one block of an outside address, with its binding if it has one.
type shownBlock struct {
	nat.Block
	Binding *inspect.Binding
}

// State returns the name of the block's state.
func (b *shownBlock) State() string {
	if b.Binding == nil {
		return "free"
	}
	return b.Binding.State.String()
}

// blocksOf returns all blocks of an outside address, in order.
func blocksOf(l Layout, bindings []inspect.Binding) []shownBlock {
	var blocks []shownBlock
	place := map[nat.Port]int{} // index of a block by its first port
	size := l.BlockSize
	for first := (int(l.First) + size - 1) / size * size; first+size-1 <= int(l.Last); first += size {
		place[nat.Port(first)] = len(blocks)
		blocks = append(blocks, shownBlock{Block: nat.Block{First: nat.Port(first), Last: nat.Port(first + size - 1)}})
	}
	for i := range bindings {
		for b := range bindings[i].All() {
			for first := int(b.First); first <= int(b.Last); first += size { // a block from another configuration may be larger
				if at, ok := place[nat.Port(first)]; ok {
					blocks[at].Binding = &bindings[i]
				}
			}
		}
	}
	return blocks
}

// countsOf returns the numbers of blocks by state, in the order of a block's life.
func countsOf(blocks []shownBlock) []stateCount {
	counts := []stateCount{{State: "active"}, {State: "draining"}, {State: "cut"}, {State: "held"}, {State: "free"}}
	for i := range blocks {
		state := blocks[i].State()
		counts[slices.IndexFunc(counts, func(c stateCount) bool { return c.State == state })].N++
	}
	return counts
}
