// Package realtimetest tests the JavaScript client of package realtime, in a browser and in
// Node.js. It is a module of its own for what drives the browser.
package realtimetest
