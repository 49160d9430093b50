package memory

// deque is a ring of entries in ascending order of seq.
type deque struct {
	ring []entry // length is zero or a power of two
	head int     // index of the first
	n    int
}

func (d *deque) at(i int) *entry { return &d.ring[(d.head+i)&(len(d.ring)-1)] }

// pushBack appends e, whose seq is the highest so far.
func (d *deque) pushBack(e entry) {
	d.grow()
	d.n++
	*d.at(d.n - 1) = e
}

// insert puts e at its place by seq, looking from the front: entries that come
// back were at the front before.
func (d *deque) insert(e entry) {
	d.grow()
	d.head = (d.head - 1) & (len(d.ring) - 1)
	d.n++
	i := 0
	for ; i+1 < d.n && d.at(i+1).seq < e.seq; i++ {
		*d.at(i) = *d.at(i + 1)
	}
	*d.at(i) = e
}

func (d *deque) popFront() entry {
	e := *d.at(0)
	*d.at(0) = entry{} // lets the record be collected
	d.head = (d.head + 1) & (len(d.ring) - 1)
	d.n--
	return e
}

// grow makes room for one more.
func (d *deque) grow() {
	if d.n < len(d.ring) {
		return
	}
	bigger := make([]entry, max(8, 2*len(d.ring)))
	for i := range d.n {
		bigger[i] = *d.at(i)
	}
	d.ring, d.head = bigger, 0
}
