"""engine=verl: verl 0.9.1 owns the loop, on one node or on many; clip methods, rewards and rows stay klear_lab's.

settings.py   each key of ours and the key of verl's that it becomes; refusals.py what verl can't honour
rows.py       rows as verl's data set class reads them
launch.py     writes config, rows and scripts into the run folder, starts verl, and takes its result over
check.py      has verl's own classes check the config
metrics.py    verl's metrics by klear_lab's names
register.py   what verl's processes import: policy_loss.py, advantages.py and worker.py; reward.py by its path
"""
