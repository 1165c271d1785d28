"""The operator: watches FineTuneJobs and brings their children, one attempt after the other, to the end that the
manifest asks for.
"""
