package main

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
)

// api is the HTTP service.
type api struct {
	orders *orders
	log    *slog.Logger
}

func (a *api) routes(mux *http.ServeMux) {
	mux.HandleFunc("POST /customers", a.postCustomer)
	mux.HandleFunc("POST /orders", a.postOrder)
	mux.HandleFunc("GET /orders/{id}", a.getOrder)
}

func (a *api) postCustomer(w http.ResponseWriter, r *http.Request) {
	c, ok := read[customer](w, r)
	if !ok {
		return
	}
	id, err := a.orders.register(r.Context(), c)
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	respond(w, http.StatusCreated, map[string]int64{"customerId": id})
}

func (a *api) postOrder(w http.ResponseWriter, r *http.Request) {
	request, ok := read[orderRequest](w, r)
	if !ok {
		return
	}
	placed, err := a.orders.place(r.Context(), request)
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	w.Header().Set("Location", "/orders/"+strconv.FormatInt(placed.OrderID, 10))
	respond(w, http.StatusCreated, placed)
}

func (a *api) getOrder(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		fail(w, http.StatusBadRequest, "the id of an order is a number")
		return
	}
	state, err := a.orders.find(r.Context(), id)
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	respond(w, http.StatusOK, state)
}

// read reads and validates a body. It answers the request, and returns false, when that
// is bad.
func read[T interface{ validate() error }](w http.ResponseWriter, r *http.Request) (body T, ok bool) {
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&body)
	if err == nil {
		if _, more := decoder.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("there is something behind the JSON object")
		}
	}
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		fail(w, http.StatusRequestEntityTooLarge, "the body is larger than 64 KiB")
		return body, false
	}
	if err != nil {
		fail(w, http.StatusBadRequest, "the body can't be read: "+err.Error())
		return body, false
	}
	if err := body.validate(); err != nil {
		fail(w, http.StatusUnprocessableEntity, strings.Split(err.Error(), "\n")...)
		return body, false
	}
	return body, true
}

// refuse answers a request that could not be done. What an unexpected error says is for
// the log only.
func (a *api) refuse(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, errNoCustomer):
		fail(w, http.StatusUnprocessableEntity, err.Error())
	case errors.Is(err, errNoOrder):
		fail(w, http.StatusNotFound, err.Error())
	case r.Context().Err() != nil: // who asked has gone away
	default:
		a.log.ErrorContext(r.Context(), "request failed", "path", r.URL.Path, "error", err)
		fail(w, http.StatusInternalServerError, "something went wrong; try again")
	}
}

func fail(w http.ResponseWriter, code int, faults ...string) {
	respond(w, code, map[string][]string{"errors": faults})
}

func respond(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // who asked has gone away
}
