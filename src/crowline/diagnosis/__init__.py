"""From measured facts to a verdict in plain words: what a network allows, why, and what would help.

    facts        what the checks found, as plain values
    prospects    whom this machine reaches directly, and by which way
    fixes        what would help, ranked by what it would change
    diagnosis    the verdict, its reasons, and all of the above
    report       the same for people, as lines, and for programs, as fields
    terms        what the words mean
    firewalls    what the tools of local firewalls say, read

Nothing here measures anything: every function is pure.
"""
