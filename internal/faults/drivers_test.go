package faults_test

import _ "github.com/gotidings/tidings/transports/rabbitmq" // for transports.Open
