"""Where front ends, planners and reports meet: each study is a function of the public API."""
