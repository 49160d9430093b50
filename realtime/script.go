package realtime

import (
	"bytes"
	_ "embed"
	"net/http"
	"time"
)

// clientName is how the path of the JavaScript client ends.
const clientName = "tidings.js"

//go:embed client/tidings.js
var clientScript []byte

// serveClient serves the JavaScript client, which has no secrets: any page may load it.
func serveClient(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		refuse(w, http.StatusMethodNotAllowed, "method", "use GET")
		return
	}
	w.Header().Set("Content-Type", "text/javascript; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache") // a page and its server are of one version
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Access-Control-Allow-Origin", "*")
	http.ServeContent(w, r, clientName, time.Time{}, bytes.NewReader(clientScript))
}
