// Package health answers the probes of an orchestrator and of load balancers:
//
//	h, err := health.New(health.Config{Checks: []health.Check{
//		health.Transport(transport),
//		health.Bus(b),
//		health.Age("outbox", time.Minute, oldestWaiting), // func(context.Context) (time.Duration, error)
//		{Name: "database", Func: db.PingContext},
//	}})
//	mux.Handle("/livez", h)
//	mux.Handle("/readyz", h)
//	mux.Handle("/readyz/", h)
//
// # Paths
//
//	/livez            200 while the process answers; it runs no check
//	/readyz           200 when every check passes, else 503
//	/readyz/<check>   the same for one check; 404 when there is none of that name
//	?verbose          adds when each check ran and how long it took
//
// GET and HEAD are answered. A process that is not live is killed, and a new one does not
// bring back a broker that is away: so /livez asks nobody. A process that is not ready
// gets no requests.
//
// # Answers
//
// The body is application/health+json, as in draft-inadarei-api-health-check-06:
//
//	{
//	  "status": "fail",
//	  "checks": {
//	    "bus": [{"status": "pass"}],
//	    "transport": [{"status": "fail", "output": "the broker can't be used"}]
//	  }
//	}
//
// A status is pass, warn, which is ready too, or fail.
//
// # What is shown
//
// Probes are answered to anybody who can reach the port, and the errors of drivers quote
// addresses, users and sometimes data. So the output of a check is the text that was
// written for it, in [Fail] or [Warn]; any other error is shown as "failed". The log has
// the whole error, once for each change of a check's status.
//
// # How checks run
//
// All at once, each for at most its timeout. A result is used for Config.MaxAge, and
// callers that come while a check runs share its result, so that many probes make one
// call to the broker. A check that does not return in spite of its timeout fails, and is
// not called again before it has returned: it leaves at most one goroutine.
package health
