package eventstoretest

const childEnv = "EVENTSTORETEST_CHILD"

func child() {}
