package bus

import "github.com/ThreeDotsLabs/watermill/message"

// reserveStack makes room on the goroutine's stack for the middleware, the codec and
// the handler. Watermill's router handles each message in a new goroutine, whose stack
// begins at 2 KiB and is doubled whenever it is used up; each time every frame on it
// is copied and adjusted. Grown at once, while it is nearly empty, that costs next to
// nothing; grown when it is deep, it was a third of all the time that an event takes.
//
//go:noinline
func reserveStack(touch bool) {
	if touch { // never; what is declared here has its place in the frame all the same
		var frame [reservedStack]byte
		touchStack(&frame)
	}
}

const reservedStack = 8 << 10

//go:noinline
func touchStack(frame *[reservedStack]byte) { frame[0]++ }

// onLargeStack is the outermost middleware of all.
func onLargeStack(h message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) ([]*message.Message, error) {
		reserveStack(false)
		return h(msg)
	}
}
