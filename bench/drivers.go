package main

import _ "github.com/gotidings/tidings/transports/rabbitmq" // for transports.Open
