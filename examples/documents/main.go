// Documents is a document-processing system of several services that talk in every way
// that real systems need. README.md is a tour.
package main

func main() {}
