"""Pure decisions: no os, sockets, threads, logging or clock; `now` and ids are arguments."""
