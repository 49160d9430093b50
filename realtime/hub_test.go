package realtime

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/bus/bustest"
	"github.com/gotidings/tidings/events"
	"github.com/gotidings/tidings/transports/memory"
)

func bearerOf(token string) string {
	return bearerPrefix + base64.RawURLEncoding.EncodeToString([]byte(token))
}

func TestGroupsGetTheirEventsAndNoOthers(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	ada, bob := n.connect("ada"), n.connect("bob")
	ada.join("document_1")
	ada.join("document_2")
	bob.join("document_2")
	n.publish("1", 10)
	n.publish("2", 20)
	n.publish("3", 30)
	n.publish("1+2", 40)
	n.publish("", 50)
	first := ada.expect("document_1 10")
	if e := first.Event; e.Type != "document.progress" || e.Source == "" || e.ID == "" || e.Time == "" {
		t.Errorf("event %+v lacks something", e)
	}
	ada.expect("document_2 20")
	ada.expect("document_1 40")
	ada.expect("document_2 40")
	bob.expect("document_2 20")
	bob.expect("document_2 40")

	ada.send(`{"leave":"document_1"}`)
	ada.expect("left document_1")
	n.publish("1", 60)
	n.publish("2", 70)
	ada.expect("document_2 70")
	bob.expect("document_2 70")
	if s := n.hub.Stats(); s.Clients != 2 || s.Groups != 1 || s.Events != 6 || s.Slow != 0 {
		t.Errorf("stats %+v", s)
	}
}

// A message names one group, the receiver's: it may not know of the others.
func TestNoMessageTellsOfOtherGroups(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	s := n.connect("ada")
	s.join("document_1")
	md := events.Metadata{ID: "1", Source: "shop", CorrelationID: "corr-7", PartitionKey: "tenant-9"}
	event, err := encodeEvent(md, progress{Percent: 1})
	if err != nil {
		t.Fatal(err)
	}
	n.hub.publish(md, []string{"document_1", "document_secret"}, event)
	_, data, err := s.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, leak := range []string{"secret", "corr-7", "tenant-9"} {
		if strings.Contains(string(data), leak) {
			t.Errorf("%s tells %q", data, leak)
		}
	}
}

func TestViewHidesWhatClientsMustNotSee(t *testing.T) {
	t.Parallel()
	b := bustest.New(t, bus.Config{})
	h := newHub(t, b.Bus, nil)
	OnView(h, func(e events.DocumentFailed) []string { return []string{"document_" + e.DocumentID} },
		func(e events.DocumentFailed) any { return map[string]string{"documentId": e.DocumentID} })
	b.Start()
	c, err := h.register(Principal{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.serving.Done()
	h.join(c, []string{"document_7"}, "")
	<-c.queue // joined
	b.Publish(events.DocumentFailed{DocumentID: "7", Error: "no space at /srv/private"})
	b.Idle()
	if data := string((<-c.queue).data); strings.Contains(data, "private") || !strings.Contains(data, `"documentId":"7"`) {
		t.Errorf("the client gets %s", data)
	}
}

// Several nodes have one audience: each has every event.
func TestNodesShareTheAudience(t *testing.T) {
	t.Parallel()
	transport, err := memory.New(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer transport.Close() //nolint:errcheck // in memory
	var hubs [2]*Hub
	var buses [2]*bus.Bus
	for i := range hubs {
		if buses[i], err = bus.New(transport, bus.Config{Source: "shop"}); err != nil {
			t.Fatal(err)
		}
		hubs[i] = newHub(t, buses[i], nil)
		if err := buses[i].Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	var clients [2]*client
	for i, h := range hubs {
		if clients[i], err = h.register(Principal{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(h.serving.Done)
		h.join(clients[i], []string{"document_1"}, "")
		<-clients[i].queue // joined
	}
	if err := buses[0].Publish(t.Context(), progress{Document: "1", Percent: 5}); err != nil {
		t.Fatal(err)
	}
	for _, c := range clients {
		if got := decode(t, (<-c.queue).data); got.String() != "document_1 5" {
			t.Errorf("received %q", got)
		}
	}
	for _, b := range buses {
		if err := b.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestTokenThatExpiresEndsTheConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, nil)
		token := "ada until " + time.Now().Add(time.Hour).Format(time.RFC3339)
		s := n.connect(token)
		s.join("document_1")
		events := n.get(token, "", "/live/?group=document_1")
		events.expect("joined document_1")
		told := make(chan string)
		go func() { // reads all the while, pings too
			last, _ := events.next()
			told <- last.String()
		}()
		start := time.Now()
		if code, _ := s.ends(); code != CloseExpired {
			t.Errorf("code %d, want %d", code, CloseExpired)
		}
		if lasted := time.Since(start); lasted != time.Hour {
			t.Errorf("it lasted %v, want an hour", lasted)
		}
		if got := <-told; got != "close  4419" {
			t.Errorf("the stream ended with %q", got)
		}
		synctest.Wait()
		if s := n.hub.Stats(); s.Clients != 0 || s.Groups != 0 {
			t.Errorf("stats %+v, want nobody", s)
		}
	})
}

func TestClientThatStopsReading(t *testing.T) {
	t.Parallel()
	for name, resumes := range map[string]bool{"and goes on is told why": true, "for good is cut": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := newNode(t, func(c *Config) { c.QueueLength, c.MaxGroups = 4, 2 })
				slow, quick := n.connect("ada"), n.connect("bob")
				slow.join("document_1")
				quick.join("document_1")
				start := time.Now()
				for i := range 20 {
					n.publish("1", i)
					quick.expect("document_1 " + strconv.Itoa(i))
				}
				if waited := time.Since(start); waited != 0 {
					t.Errorf("the others were held up for %v", waited)
				}
				if s := n.hub.Stats(); s.Slow != 1 || s.Clients != 1 {
					t.Errorf("stats %+v, want one slow client to be gone", s)
				}
				if resumes {
					if code, reason := slow.ends(); code != CloseSlow || !strings.Contains(reason, "too slow") {
						t.Errorf("ended with %d %q", code, reason)
					}
					return
				}
				time.Sleep(n.hub.cfg.WriteTimeout + 6*time.Second)
				synctest.Wait()
				if code, _ := slow.ends(); code != 0 {
					t.Errorf("code %d, want a cut connection", code)
				}
			})
		})
	}
}

// A client that is gone without a word is noticed by its ping.
func TestPingThatIsNotAnswered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, nil)
		there := n.connect("ada")
		there.CloseRead(t.Context()) // answers pings
		n.connect("bob")             // does not read
		time.Sleep(n.hub.cfg.PingInterval + n.hub.cfg.WriteTimeout + time.Second)
		synctest.Wait()
		if s := n.hub.Stats(); s.Clients != 1 {
			t.Errorf("%d clients, want the one that answers", s.Clients)
		}
	})
}

func TestCloseTellsClientsAndRefusesNewOnes(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	s := n.connect("ada")
	s.join("document_1")
	events := n.stream("", "document_1")
	events.expect("joined document_1")
	done := make(chan error, 2)
	for range 2 {
		go func() { done <- n.hub.Close(t.Context()) }()
	}
	if code, _ := s.ends(); code != CloseGoingAway {
		t.Errorf("code %d, want %d", code, CloseGoingAway)
	}
	events.expect("close  1001")
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if late := n.get("ada", "", "/live/?group=document_1"); late.res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("status %d after Close", late.res.StatusCode)
	}
}

func TestCloseCutsWhoDoesNotGo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, func(c *Config) { c.WriteTimeout = time.Hour })
		s := n.connect("ada")
		s.join("document_1")
		n.publish("1", 1) // which it does not read
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if err := n.hub.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close: %v", err)
		}
		if err := n.hub.Close(t.Context()); err != nil {
			t.Errorf("Close, again: %v", err)
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestTooManyClients(t *testing.T) {
	t.Parallel()
	n := newNode(t, func(c *Config) { c.MaxClients = 1 })
	n.connect("ada")
	_, res, err := websocket.Dial(t.Context(), "ws://hub/live/", &websocket.DialOptions{
		HTTPClient: n.client(), Subprotocols: []string{subprotocol, bearerOf("bob")},
	})
	if err == nil || res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("error %v, want status 503", err)
	}
}

func TestConfigFaultsAreToldAtOnce(t *testing.T) {
	t.Parallel()
	_, err := New(Config{Origins: []string{"*", "https://a.example/path"}, QueueLength: 3, MaxGroups: 3, WriteTimeout: -1})
	for _, want := range []string{"Bus", "Authenticate", "Authorize", `"*"`, "a.example/path", "QueueLength", "WriteTimeout"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not tell of %s", err, want)
		}
	}
}
