package main

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/gotidings/tidings/events"
)

// Limits of requests.
const (
	maxBody     = 64 << 10 // bytes
	maxName     = 200      // characters, as in the schema
	maxEmail    = 320      // characters
	maxItems    = 100      // of an order
	maxQuantity = 1000     // of an item
)

// customer is the body of POST /customers.
type customer struct {
	Name  string `json:"name"`
	Email string `json:"email"`
}

// validate returns everything that is wrong.
func (c customer) validate() error {
	var faults []error
	if n := utf8.RuneCountInString(c.Name); n == 0 || n > maxName || strings.ContainsRune(c.Name, 0) {
		faults = append(faults, fmt.Errorf("name takes 1 to %d characters", maxName))
	}
	if utf8.RuneCountInString(c.Email) > maxEmail || strings.ContainsRune(c.Email, 0) {
		faults = append(faults, fmt.Errorf("email takes at most %d characters", maxEmail))
	}
	event := events.CustomerCreated{CustomerID: 1, CustomerName: c.Name, Email: c.Email}
	return errors.Join(append(faults, event.Validate())...)
}

// orderRequest is the body of POST /orders. The shop knows the prices.
type orderRequest struct {
	CustomerID int64         `json:"customerId"`
	Items      []itemRequest `json:"items"`
}

type itemRequest struct {
	ProductID int64 `json:"productId"`
	Quantity  int64 `json:"quantity"`
}

func (r orderRequest) validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if r.CustomerID < 1 {
		fault("customerId is not positive")
	}
	if n := len(r.Items); n < 1 || n > maxItems {
		fault("items takes 1 to %d, there are %d", maxItems, n)
		return errors.Join(faults...)
	}
	for i, item := range r.Items {
		if item.ProductID < 1 || item.ProductID > products {
			fault("items[%d].productId is none of 1 to %d", i, products)
		}
		if item.Quantity < 1 || item.Quantity > maxQuantity {
			fault("items[%d].quantity takes 1 to %d", i, maxQuantity)
		}
	}
	return errors.Join(faults...)
}

// priced is the event of the order, without the id that it does not have yet.
func (r orderRequest) priced() events.OrderCreated {
	e := events.OrderCreated{CustomerID: r.CustomerID, Items: make([]events.OrderItem, len(r.Items))}
	for i, item := range r.Items {
		e.Items[i] = events.OrderItem{ProductID: item.ProductID, Quantity: item.Quantity, UnitPrice: price(item.ProductID)}
		e.TotalAmount = e.TotalAmount.Add(e.Items[i].UnitPrice.Mul(item.Quantity))
	}
	return e
}
