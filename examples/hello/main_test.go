package main

import (
	"context"
	"fmt"
)

func Example_run() {
	if err := run(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output: welcome, ada@example.com
}
