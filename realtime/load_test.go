package realtime

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/gotidings/tidings/bus"
	"github.com/gotidings/tidings/bus/bustest"
)

const (
	loadClients = 1000
	loadGroups  = 50
)

// loaded returns a hub behind a real server.
func loaded(tb testing.TB) (*bustest.Bus, *Hub, string) {
	tb.Helper()
	b := bustest.New(tb, bus.Config{})
	h, err := New(Config{Bus: b.Bus, Authenticate: authenticate, Authorize: authorize})
	if err != nil {
		tb.Fatal(err)
	}
	On(h, groupsOf)
	b.Start()
	srv := httptest.NewServer(h)
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := h.Close(ctx); err != nil {
			tb.Error(err)
		}
		srv.Close()
	})
	return b, h, srv.URL
}

// Every client gets every event of its two groups, in order, and none of the others. The
// delivery time, from Publish to the client's having read it, is logged.
func TestThousandClients(t *testing.T) { //nolint:paralleltest // its times are measured
	b, h, url := loaded(t)
	const events = 10 // of each group, in a burst
	const paced = 100 // one after the other
	type seen struct {
		group   string
		percent int
		at      time.Time
	}
	arrived := make(chan seen, loadClients*4)
	var clients sync.WaitGroup
	groupsOfClient := func(i int) [2]int { return [2]int{i % loadGroups, (i + 1 + i/loadGroups) % loadGroups} }
	members := make([]int, loadGroups)
	ready := make(chan struct{}, loadClients)
	for i := range loadClients {
		own := groupsOfClient(i)
		want := map[string]int{} // next percent
		for _, g := range own {
			if _, twice := want["document_"+strconv.Itoa(g)]; !twice {
				members[g]++
			}
			want["document_"+strconv.Itoa(g)] = 0
		}
		clients.Go(func() {
			conn, res, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{Subprotocols: []string{subprotocol, bearerOf("ada")}})
			if err != nil {
				t.Error(err)
				ready <- struct{}{}
				return
			}
			if res.Body != nil {
				defer res.Body.Close() //nolint:errcheck // it has none
			}
			defer conn.CloseNow() //nolint:errcheck // nothing more is sent
			for group := range want {
				if err := conn.Write(t.Context(), websocket.MessageText, []byte(`{"join":"`+group+`"}`)); err != nil {
					t.Error(err)
				}
			}
			for joined := 0; ; {
				_, data, err := conn.Read(t.Context())
				if err != nil {
					return // the hub has closed
				}
				at := time.Now()
				var r received
				if err := json.Unmarshal(data, &r); err != nil {
					t.Error(err)
				}
				if r.Type == "joined" {
					if joined++; joined == len(want) {
						ready <- struct{}{}
					}
					continue
				}
				next, mine := want[r.Group]
				if !mine || r.Event.Data.Percent != next {
					t.Errorf("client %d got %q, want number %d of one of %v", i, r, next, own)
				}
				want[r.Group]++
				arrived <- seen{r.Group, r.Event.Data.Percent, at}
			}
		})
	}
	for range loadClients {
		<-ready
	}
	if t.Failed() {
		t.FailNow()
	}
	receive := func(n int, since func(seen) time.Time) []time.Duration {
		var took []time.Duration
		timeout := time.After(time.Minute)
		for range n {
			select {
			case s := <-arrived:
				took = append(took, s.at.Sub(since(s)))
			case <-timeout:
				t.Fatalf("%d of %d deliveries", len(took), n)
			}
		}
		slices.Sort(took)
		return took
	}
	p := func(took []time.Duration, percent int) time.Duration { return took[(len(took)-1)*percent/100] }

	published := make(map[string]time.Time)
	total := 0
	start := time.Now()
	for k := range events {
		for g := range loadGroups {
			published[strconv.Itoa(g)+"/"+strconv.Itoa(k)] = time.Now()
			b.Publish(progress{Document: strconv.Itoa(g), Percent: k})
			total += members[g]
		}
	}
	took := receive(total, func(s seen) time.Time {
		return published[strings.TrimPrefix(s.group, "document_")+"/"+strconv.Itoa(s.percent)]
	})
	t.Logf("burst: %d events, %d deliveries in %v; delivery p50 %v, p99 %v", events*loadGroups, total, time.Since(start), p(took, 50), p(took, 99))

	took = nil
	for k := range paced {
		g := k % loadGroups
		at := time.Now()
		b.Publish(progress{Document: strconv.Itoa(g), Percent: events + k/loadGroups})
		took = append(took, receive(members[g], func(seen) time.Time { return at })...)
	}
	slices.Sort(took)
	t.Logf("one event at a time, to %d clients each: delivery p50 %v, p99 %v", members[0], p(took, 50), p(took, 99))
	if s := h.Stats(); s.Slow != 0 || s.Clients != loadClients || s.Groups != loadGroups {
		t.Errorf("stats %+v", s)
	}
	if err := h.Close(t.Context()); err != nil {
		t.Error(err)
	}
	clients.Wait()
	if len(arrived) != 0 {
		t.Errorf("%d deliveries too many", len(arrived))
	}
}

// What a client costs the server that does nothing: the other ends are bare connections.
func TestMemoryPerClient(t *testing.T) { //nolint:paralleltest // its memory is measured
	_, h, url := loaded(t)
	inUse := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	address := strings.TrimPrefix(url, "http://")
	before, goroutines := inUse(), runtime.NumGoroutine()
	for range loadClients {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		request := "GET / HTTP/1.1\r\nHost: " + address + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n" +
			"Sec-WebSocket-Protocol: " + subprotocol + ", " + bearerOf("ada") + "\r\n\r\n"
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatal(err)
		}
		head := make([]byte, 16)
		if _, err := io.ReadFull(conn, head); err != nil || !strings.Contains(string(head), strconv.Itoa(http.StatusSwitchingProtocols)) {
			t.Fatalf("%v: %s", err, head)
		}
	}
	per := (float64(inUse()) - float64(before)) / loadClients
	more := float64(runtime.NumGoroutine()-goroutines) / loadClients
	t.Logf("%d idle clients: %.1f KiB and %.2f goroutines each", h.Stats().Clients, per/1024, more)
	if more > 2.1 {
		t.Errorf("%.2f goroutines for each client, want 2", more)
	}
	if per > 64<<10 {
		t.Errorf("%.0f bytes for each client, want less than 64 KiB", per)
	}
}
