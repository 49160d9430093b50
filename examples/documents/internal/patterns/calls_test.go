package patterns

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/gotidings/tidings/examples/documents/internal/httpclient"
)

// BenchmarkREST is a POST that is answered with what it sent: by net/http alone, and with the
// policies of package httpclient around it.
func BenchmarkREST(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var job Job
		if err := json.NewDecoder(r.Body).Decode(&job); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_ = json.NewEncoder(w).Encode(job) // the client says what it lacks
	}))
	defer server.Close()
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	defer transport.CloseIdleConnections()
	b.Run("net-http", func(b *testing.B) {
		measure(b, func(ctx context.Context, n int64) error { return post(ctx, transport, server.URL, Job{n, text}) })
	})
	b.Run("httpclient", func(b *testing.B) {
		client, err := httpclient.New(httpclient.Config{Name: "bench", BaseURL: server.URL, Transport: transport, MaxConcurrent: 64})
		if err != nil {
			b.Fatal(err)
		}
		measure(b, func(ctx context.Context, n int64) error {
			_, err := httpclient.Do(ctx, client, httpclient.Request[Job]{Method: http.MethodPost, Path: "/jobs", Body: Job{n, text}})
			return err
		})
	})
}

func post(ctx context.Context, transport *http.Transport, url string, job Job) error {
	body, err := json.Marshal(job)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	res, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close() //nolint:errcheck // it was read
	if body, err = io.ReadAll(res.Body); err != nil {
		return err
	}
	return json.Unmarshal(body, &job)
}

type message = wrapperspb.BytesValue

// service echoes, in a call of its own for each message or in a stream. Generated code does
// the same.
var service = grpc.ServiceDesc{
	ServiceName: "bench.Echo",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{MethodName: "Call", Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		in := new(message)
		return in, decode(in)
	}}},
	Streams: []grpc.StreamDesc{{StreamName: "Stream", ClientStreams: true, ServerStreams: true, Handler: func(_ any, stream grpc.ServerStream) error {
		for {
			in := new(message)
			if stream.RecvMsg(in) != nil {
				return nil // the client has ended it
			}
			if err := stream.SendMsg(in); err != nil {
				return err
			}
		}
	}}},
}

// dial starts the service and connects to it.
func dial(b *testing.B) *grpc.ClientConn {
	b.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(b.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := grpc.NewServer()
	server.RegisterService(&service, nil)
	var served sync.WaitGroup
	served.Go(func() {
		if err := server.Serve(l); err != nil {
			b.Error(err)
		}
	})
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := conn.Close(); err != nil {
			b.Error(err)
		}
		server.Stop()
		served.Wait()
	})
	return conn
}

// BenchmarkGRPCUnary is a call for each job.
func BenchmarkGRPCUnary(b *testing.B) {
	conn := dial(b)
	body := &message{Value: []byte(text)}
	measure(b, func(ctx context.Context, _ int64) error {
		return conn.Invoke(ctx, "/bench.Echo/Call", body, new(message))
	})
}

// BenchmarkGRPCStream sends jobs over one stream, on which they come back.
func BenchmarkGRPCStream(b *testing.B) {
	conn := dial(b)
	stream, err := conn.NewStream(b.Context(), &service.Streams[0], "/bench.Echo/Stream")
	if err != nil {
		b.Fatal(err)
	}
	var a arrivals
	var receiving sync.WaitGroup
	receiving.Go(func() {
		for {
			in := new(message)
			if stream.RecvMsg(in) != nil {
				return
			}
			var job Job
			if err := json.Unmarshal(in.Value, &job); err != nil {
				b.Error(err)
			}
			a.arrived(job.N)
		}
	})
	var mu sync.Mutex // one may send at a time
	measure(b, func(ctx context.Context, n int64) error {
		return a.sent(ctx, n, func(_ context.Context, job Job) error {
			body, err := json.Marshal(job)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			return stream.SendMsg(&message{Value: body})
		})
	})
	if err := stream.CloseSend(); err != nil {
		b.Error(err)
	}
	receiving.Wait()
}
