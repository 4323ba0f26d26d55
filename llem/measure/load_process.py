"""The load process: asks a server as the plan says, and writes every request, with the times of its chunks, into a segment of role `load`.

Its worker starts it through `llem.measure.load_link.LoadLink`. What they say to each other, in order:

    worker                          load process
    LoadSetup                  ->   reads the prompts
                               <-   LoadReady, or ReportFailure
    StartLoad("warmup")        ->   writes load_planned
                               <-   LoadStarted
                               <-   LoadProgress, a few times a second
    EndLoad(drain=True)        ->
                               <-   LoadOffered: nothing is sent any more
                               <-   LoadDone: all have ended; load_completed is in the log
    StartLoad("measurement")   ->   the same; it ends by itself as the plan says
    Finish                     ->   seals, ends

It ends by its channel alone: signals wait in it for ever, and when its worker is gone it stops what is in flight, seals and ends. The API key is
read from the environment variable that the setup names.
"""
