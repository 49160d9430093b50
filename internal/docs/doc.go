// Package docs checks README.md and docs: their Go code is code that compiles, their links
// lead somewhere, and the names and messages that they quote are those of the library.
//
// # Code
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
// The file must be one that Go compiles: an example, a test, or the library itself. With
// -update the code is copied anew:
//
//	go test ./internal/docs -update
//
// # Links, names, messages
//
// Each link to a file of the repository, in any Markdown file, leads to one that is there, and
// what is behind # is a heading of it. Each page of docs can be reached from docs/README.md.
// The page of a transport links to its guarantees.
//
// A name that is written as code, such as bus.RetryPolicy.Attempts between backquotes, is
// exported by its package. What the first column of the table of troubleshooting writes as
// code is found in the library's sources.
package docs
