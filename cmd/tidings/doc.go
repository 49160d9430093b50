package main

const rootHelp = `Operate the events of services on Tidings.`
