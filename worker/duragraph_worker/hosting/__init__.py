"""Hosts graphs of LangGraph unchanged: compiled ones, factories, functional entrypoints, as durable as native ones.

| module | what it is for |
|---|---|
| graphs | a graph as it is found in a module: loaded, described, executed |
| running | one run: drives the graph, and records what it does |
| frames | what the graph streams, as the frames of the run's stream modes |
| saver | the checkpointer: what the graph saves goes out in the run's own fenced Writes |
| store | the graph's BaseStore |
| embeddings | embedders named by provider |
| outbox | puts checkpoints and events in order |
| rendering | values as JSON |
| exits | `sys.exit()` in a node ends the run, not the worker |

Nothing here is imported before a graph of LangGraph is named. Needs `pip install "duragraph-worker[langgraph]"`.
"""
