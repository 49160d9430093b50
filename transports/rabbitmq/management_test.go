package rabbitmq

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gotidings/tidings/transports"
)

// managed serves answers of the shape that the management plugin of 3.10 gives. That it
// does is tested in cmd/tidings, against the plugin.
func managed(t *testing.T, answers map[string]string) *Management {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "ada" || password != "secret" {
			t.Errorf("login %q, %q", user, password)
		}
		answer, ok := answers[r.URL.EscapedPath()]
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte(answer))
	}))
	t.Cleanup(server.Close)
	m, err := NewManagement(ManagementConfig{
		URL: server.URL + "/", BrokerURL: "amqp://ada:secret@host/a%2Fb?exchange=mine", Client: server.Client(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestManagedSubscriptions(t *testing.T) {
	t.Parallel()
	m := managed(t, map[string]string{
		"/api/queues/a%2Fb": `[
			{"name":"mine/shop.mail","arguments":{"x-queue-type":"quorum"},"messages_ready":1},{"name":"mine/shop.mail:poison"},
			{"name":"mine/live","exclusive":true},{"name":"mine/live:poison","exclusive":true},
			{"name":"mine/left:poison"},
			{"name":"mine/theirs"},{"name":"mine/theirs:poison"},
			{"name":"shop.mail"},{"name":"shop.mail:poison"},{"name":"other/shop.mail:poison"},
			{"name":"mine/shared"},{"name":"mine/shared:poison"},
			{"name":"mine/unbound"},{"name":"mine/unbound:poison"},
			{"name":"mine/foreign"},{"name":"mine/tidings.unrouted"},{"name":"mine/shop.mail:removed"}]`,
		"/api/bindings/a%2Fb": `[
			{"source":"","destination":"mine/shop.mail","destination_type":"queue","routing_key":"mine/shop.mail"},
			{"source":"mine/tidings.retry","destination":"mine/unbound","destination_type":"queue","routing_key":"mine/unbound"},
			{"source":"mine","destination":"mine/shop.mail","destination_type":"queue","routing_key":"order.shipped"},
			{"source":"mine","destination":"mine/shop.mail","destination_type":"queue","routing_key":"order.created"},
			{"source":"mine","destination":"mine/live","destination_type":"queue","routing_key":"#"},
			{"source":"mine","destination":"mine/unbound","destination_type":"exchange","routing_key":"#"},
			{"source":"other","destination":"mine/theirs","destination_type":"queue","routing_key":"a"},
			{"source":"other","destination":"mine/shared","destination_type":"queue","routing_key":"a"},
			{"source":"mine","destination":"mine/shared","destination_type":"queue","routing_key":"b"}]`,
	})
	got, err := m.Subscriptions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []transports.SubscriptionInfo{
		{Name: "left", Topics: []string{}},
		{Name: "live", Topics: []string{"#"}, Ephemeral: true},
		{Name: "shared", Topics: []string{"b"}},
		{Name: "shop.mail", Topics: []string{"order.created", "order.shipped"}, Arguments: map[string]any{"x-queue-type": "quorum"}},
		{Name: "unbound", Topics: []string{}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestManagedDepth(t *testing.T) {
	t.Parallel()
	m := managed(t, map[string]string{
		"/api/queues/a%2Fb/mine%2Fs":          `{"name":"s","messages_ready":3,"messages_unacknowledged":2}`,
		"/api/queues/a%2Fb/mine%2Fs%3Apoison": `{"messages_ready":4,"messages_unacknowledged":1}`,
		"/api/queues/a%2Fb/mine%2Fs:poison":   `{"messages_ready":4,"messages_unacknowledged":1}`,
	})
	got, err := m.Depth(t.Context(), "s")
	if want := (transports.Depth{Ready: 3, InFlight: 2, Delayed: transports.UnknownDepth, Poisoned: 5}); got != want || err != nil {
		t.Errorf("depth %+v, %v; want %+v", got, err, want)
	}
	if _, err := m.Depth(t.Context(), "unknown"); !errors.Is(err, transports.ErrNoSubscription) {
		t.Errorf("of an unknown subscription: %v", err)
	}
}

func TestManagementErrors(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]string{
		http.StatusUnauthorized:        "the login is refused",
		http.StatusForbidden:           `the user may not look at the vhost "/"`,
		http.StatusNotFound:            "is that the URL of the management API",
		http.StatusInternalServerError: "500",
		http.StatusOK:                  "not that of the management API",
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>", status) }))
		url := strings.Replace(server.URL, "://", "://ada:secret@", 1)
		m, err := NewManagement(ManagementConfig{URL: url, BrokerURL: "amqp://bob:hidden@host/", Client: server.Client()})
		if err != nil {
			t.Fatal(err)
		}
		_, err = m.Subscriptions(t.Context())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("status %d: %v; want %q", status, err, want)
		}
		server.Close()
		if _, err = m.Subscriptions(t.Context()); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("with nobody there: %v", err)
		}
	}
	for name, cfg := range map[string]ManagementConfig{
		"nothing": {}, "another scheme": {URL: "ftp://ada:secret@host", BrokerURL: "amqp://host/"},
		"malformed": {URL: "http://ada:secret%zz@host", BrokerURL: "amqp://host/"}, "no host": {URL: "http://", BrokerURL: "amqp://host/"},
		"no broker":   {URL: "http://host", BrokerURL: "postgres://bob:secret@host"},
		"a parameter": {URL: "http://host", BrokerURL: "amqp://bob:secret@host/?nonsense=1"},
	} {
		_, err := NewManagement(cfg)
		if !errors.Is(err, transports.ErrInvalidURL) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
