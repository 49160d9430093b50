package events

import (
	"errors"
	"fmt"
)

// maxFaults bounds the faults that one event reports. Without a bound a payload
// of a few megabytes, an order of a million empty items, would become an error
// text many times its size, which is then logged and kept with the poisoned
// message.
const maxFaults = 20

// faults collects what is wrong with an event. It costs nothing as long as
// nothing is. A problem does not quote the value: problems are logged, and the
// value may be a customer's.
type faults []error

// check adds a fault of the field unless the problem is "".
func (f *faults) check(field, problem string) {
	if problem != "" {
		*f = append(*f, &ValidationError{Field: field, Problem: problem})
	}
}

// checkItem is check for a field of items[i].
func (f *faults) checkItem(i int, field, problem string) {
	if problem != "" {
		f.check(fmt.Sprintf("items[%d].%s", i, field), problem)
	}
}

// err returns the faults joined, or nil when there are none.
func (f *faults) err() error { return errors.Join(*f...) }

func notPositive(n int64) string {
	if n <= 0 {
		return "is not positive"
	}
	return ""
}

func priceProblem(m Money) string {
	if m.Sign() < 0 {
		return "is negative"
	}
	return m.problem()
}

// idProblem checks an id that is text. It may be part of a partition key, so it
// has to be fit for an attribute of the metadata.
func idProblem(id string) string {
	if id == "" {
		return "is empty"
	}
	return textProblem(id)
}
