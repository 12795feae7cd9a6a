"""Correlation over the stream: Sigma's correlation rules on event time, and what Sigma has no words for (first seen, absence, unless).

Windows slide and end at events; nothing waits for a wall clock but what asks for an absence. All state is bounded, can be exported and
restored, and belongs to one tenant. Rejected: windows on fixed boundaries (they miss what crosses one) and on arrival time (a poller that
catches up would see a brute force in every back-fill).
"""
