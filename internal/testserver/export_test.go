package testserver

// Folder returns where the test sees the broker's data.
func (b *Broker) Folder() string { return b.root.outside(b.dir) }
