// Package docs checks that the Go code in README.md and docs is code that compiles.
//
// Every Go block names the file that it is copied from, in a comment above it, and is
// identical to that file or to a region of it:
//
//	<!-- file: examples/hello/main.go#publish -->
//	```go
//	err := b.Publish(ctx, event)
//	```
//
// A region lies between two comments in the file. Indentation that its lines have in
// common, and blank lines at its ends, are left out of the copy:
//
//	// region publish
//	err := b.Publish(ctx, event)
//	// endregion
//
// The file must be one that Go compiles: an example, a test, or the library itself.
package docs
