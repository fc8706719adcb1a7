package portuse

import "math/bits"

// Bounds of the classes: there are fineClasses for each doubling, so that a class is at most
// an eighth wide. Every power of two is the upper bound of a class.
const (
	fineBits    = 3
	fineClasses = 1 << fineBits
	most        = 1 << 16 // ports of a protocol
	classes     = fineClasses * (16 - fineBits + 1)
)

// Counts are numbers of subscribers by their number of ports, from 1 to 65536. The zero value
// has none. It takes 900 octets.
type Counts struct {
	users uint64
	sum   uint64
	of    [classes]uint64
}

// classOf returns the class of a number of ports. Those up to fineClasses have one each.
func classOf(ports int) int {
	w := uint(min(ports, most) - 1)
	e := max(bits.Len(w)-fineBits-1, 0)
	return fineClasses*e + int(w>>e)
}

// upperBound returns the largest number of ports of a class.
func upperBound(class int) int {
	if class < fineClasses {
		return class + 1
	}
	e := class/fineClasses - 1
	return (class%fineClasses + fineClasses + 1) << e
}

// Add counts a subscriber with a number of ports; 0 counts for nothing.
func (c *Counts) Add(ports int) {
	if ports > 0 {
		c.of[classOf(ports)]++
		c.users++
		c.sum += uint64(ports)
	}
}

// Move counts a subscriber, which had a number of ports, by a larger one.
func (c *Counts) Move(from, to int) {
	if from > 0 {
		c.of[classOf(from)]--
		c.users--
		c.sum -= uint64(from)
	}
	c.Add(to)
}

// Users returns the number of subscribers with a port.
func (c *Counts) Users() int { return int(c.users) }

// Sum returns the sum of their ports.
func (c *Counts) Sum() uint64 { return c.sum }

// Above returns the number of subscribers with more ports than a power of two from 1 to 65536.
func (c *Counts) Above(size int) int {
	n := uint64(0)
	for class := range c.of {
		if upperBound(class) > size {
			n += c.of[class]
		}
	}
	return int(n)
}

// Percentile returns the number of ports that p percent of the subscribers with a port do not
// exceed, up to an eighth too large; 0 without subscribers.
func (c *Counts) Percentile(p float64) int {
	seen, upper := uint64(0), 0
	for class, n := range c.of {
		if n == 0 {
			continue
		}
		seen, upper = seen+n, upperBound(class)
		if float64(seen) >= p/100*float64(c.users) {
			break
		}
	}
	return upper
}

// UpTo returns the number of subscribers with at most so many ports, for each power of two
// from 1 to 65536.
func (c *Counts) UpTo() map[float64]uint64 {
	upTo := make(map[float64]uint64, 17)
	for size := 1; size <= most; size *= 2 {
		upTo[float64(size)] = c.users - uint64(c.Above(size))
	}
	return upTo
}
