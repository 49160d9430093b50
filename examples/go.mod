module github.com/gotidings/tidings/examples

go 1.26

require github.com/gotidings/tidings v0.0.0

replace github.com/gotidings/tidings => ../
