"""What is measured, against whom, and how to measure it again.

The tools in C are plain loops, and two of them bend to what is measured. ``floor`` takes the size of its frames
(BYTES): an event of ours is larger than its payload by id and tags, and a floor of smaller frames would be no floor;
its RATE counts sends, so that ten frames in one send come as often as one. ``wsload`` gives each connection a line of
a file (-T), because every client of ours has a token of its own, and in a chat room a second one to watch it; it
answers pings, also those of a server's own protocol (-R), without which an edge closes who only listens, and
counts who did, for a connection that has answered one is whole.
"""
