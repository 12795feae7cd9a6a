"""The only floor that knows Kafka and Faust: topics, state, the poller, the agents and lanes, the recorder, the command line."""
