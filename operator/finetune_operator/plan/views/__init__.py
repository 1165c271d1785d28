"""Small frozen projections of the Kubernetes objects that any planner looks at: Jobs, pods, Services, Events.

The store keeps these instead of raw objects, so that memory goes by what a plan needs, not by what Kubernetes sends.
`from_object` takes an object as the API server sends it. All moments are seconds since the epoch.
"""
