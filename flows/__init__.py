"""What runs: the dataflow, its sources and sinks, the simulator."""
